"""The functions and operators of SQL expressions, a kind of value or of question each."""
