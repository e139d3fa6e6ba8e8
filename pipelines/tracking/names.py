"""The default name of the registered model, and the aliases that its versions get."""

MODEL_NAME = "review_classifier"
CHALLENGER = "challenger"
CHAMPION = "champion"
PREVIOUS_CHAMPION = "previous_champion"
