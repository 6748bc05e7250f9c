//! Windlass: opens, converts, quantizes, runs and fine-tunes large language models.
