"""From run records to comparison tables: collect (files), aggregate (pure functions), table (text, Markdown, CSV)."""
