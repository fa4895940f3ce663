"""One run as a story: base model, preparation, execution, record, tracking, forecast."""
