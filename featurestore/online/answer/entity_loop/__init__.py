"""The one compiled call that answers most entities: what it knows of a part, the call, the loop in it."""
