"""GunPoint, ItalyPowerDemand and BasicMotions of the UCR/UEA archive, TS2Vec, 200 steps each.

SELFSUP_DATA=... python -m recipes.ucr_ts2vec
"""

import selfsup

from . import data, reproduce

SETS = ("GunPoint", "ItalyPowerDemand", "BasicMotions")

if __name__ == "__main__":
    archive = data("timeseries/ucr_uea_ts.tar.gz", "ucr_uea")
    for name in SETS:
        reproduce(
            f"{name.lower()}-ts2vec",
            lambda seed, out, name=name: selfsup.pretrain(
                archive / name / f"{name}_TRAIN.ts",
                method="ts2vec",
                encoder="dilated",
                steps=200,
                seed=seed,
                out=out,
            ),
            archive / name,
            shots=(1, 5),
            finetune=False,
        )
