#!/bin/bash
# Faults while both nodes are in sync and the primary works.
. "$(dirname "$0")/faults.sh"
prepare() { in_sync; }
in_phase() { in_sync; }
finished() { in_sync; }
cluster_begin
scenarios "the stream"
