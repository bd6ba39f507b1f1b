"""Settings as Python to paste: what it builds equals what is on the page."""

import json

from qat_core import QATConfig, QuantSpec


def spec_source(spec: QuantSpec) -> str:
    """The spec as a call."""
    return str(spec).replace("'", '"')


def config_source(config: QATConfig | None) -> str:
    """The config as a call, an override a line."""
    if config is None:
        return "None"
    tensors = f"weight={spec_source(config.weight)}"
    if config.activation is not None:
        tensors += f", activation={spec_source(config.activation)}"
    if not config.overrides:
        return f"QATConfig({tensors})"
    overrides = "".join(f"        {json.dumps(g)}: {config_source(c)},\n" for g, c in config.overrides.items())
    return f"QATConfig(\n    {tensors},\n    overrides={{\n{overrides}    }},\n)"
