"""Write down what was gathered: tables, figures, a page, the terminal. Nothing is computed anew."""
