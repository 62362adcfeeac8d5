"""The page at `/`: plain HTML, CSS and JavaScript that use the API as any other caller does."""
