"""Pipelines: stages that items flow through, in this process or in actors, with bounded buffers between them."""
