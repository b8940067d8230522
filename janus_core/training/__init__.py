"""The three-stage recipe of the Janus papers, and the small parts that the papers take ready-made (extra `train`)."""
