"""The report's charts. Each module computes what one chart shows, and draws it as SVG for the page."""
