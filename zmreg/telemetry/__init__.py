"""Facts folded: what is known of calls afterwards, counts, timelines. Several views of the same facts."""
