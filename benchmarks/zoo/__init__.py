"""Architectures that people have, small and random: does the one call of the README take them?"""

ROOMS = {  # where each of them lies
    "of torch": "of_torch",
    "language": "language",
    "language, word by word": "language",
    "mixtures of experts": "language",
    "state spaces and recurrence": "language",
    "vision": "vision",
    "vision, timm": "vision",
    "vision, torchvision": "vision",
    "audio": "audio",
    "series": "audio",
}
