"""The demo world: the recipe of the small Whisper that emtta carries, and the measurements of its model card."""
