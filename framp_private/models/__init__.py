"""Target networks, hypernetworks and the rule that cuts a submodel out of generated weights."""
