"""What it takes to put one program, and no other, behind TokenHub: environment, trust files, preload shims."""
