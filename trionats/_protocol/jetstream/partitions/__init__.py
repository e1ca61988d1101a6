"""Partitioned consumer groups: what is stored of one, who has which partitions, and what a member does when that changes."""
