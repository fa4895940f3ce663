"""THE EQUATION, h' = compose(h, s · f(u)): what, where, how, how much, how many, and where they meet. torch alone."""
