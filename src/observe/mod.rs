//! What sedge tells about itself: per-core counters and histograms that are summed when scraped, the access log, and
//! trace identifiers. Nothing here blocks or locks on the path of a segment.
