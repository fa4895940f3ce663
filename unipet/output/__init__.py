"""What a person sees: whole files or none, tables, progress, where the time went, what other libraries say."""
