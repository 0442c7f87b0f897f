"""Jobs: programs that a node of the cluster runs, and looks after when whoever has submitted them is gone."""
