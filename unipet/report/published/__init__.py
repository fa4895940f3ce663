"""Published numbers: of papers and other projects, from files with their settings, beside ours."""
