"""Text and pictures to ids and back."""
