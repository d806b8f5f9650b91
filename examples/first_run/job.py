"""A small job as anybody would write it: it knows nothing of collfs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy.linalg
import scipy.stats

matrix = scipy.linalg.hilbert(6) + np.eye(6)
solution = scipy.linalg.solve(matrix, np.arange(6.0))
table = pd.DataFrame({"x": solution, "group": list("aabbcc")}).groupby("group").sum()
print(f"solved: {solution.sum():.6f}, groups: {len(table)}, p: {scipy.stats.norm.cdf(solution[0]):.6f}")
