"""The demo model: the recipe of the small Whisper that comes with emtta, and the measurements of its model card."""
