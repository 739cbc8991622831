"""What an evaluation costs before it runs, and several of them in a row: plans, prices, programmes, hours, memory."""
