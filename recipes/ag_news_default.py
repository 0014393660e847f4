"""AG News (6,000 articles, four topics), nothing chosen: ten minutes.

SELFSUP_DATA=... python -m recipes.ag_news_default
"""

import os
from pathlib import Path

import selfsup

from . import reproduce

if __name__ == "__main__":
    if "SELFSUP_DATA" not in os.environ:
        raise SystemExit("set SELFSUP_DATA to the folder that holds text/")
    news = Path(os.environ["SELFSUP_DATA"]) / "text"
    reproduce(
        "ag-news",
        lambda seed, out: selfsup.pretrain(news / "ag_news_train.csv", seed=seed, out=out),
        f"{news}/ag_news_*.csv",
        shots=(1, 10, 100),
        finetune=False,
    )
