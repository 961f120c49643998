"""Pictures of plans: what is in one (``diagram``), and its printers, Mermaid and SVG. Pure: values in, text out."""
