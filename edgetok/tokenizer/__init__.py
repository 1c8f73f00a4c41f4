"""What turns a signal into discrete tokens and back."""
