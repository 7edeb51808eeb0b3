#!/usr/bin/env python3
"""Makes an SBOM the same whenever and wherever it is made of the same commit: sorted, of the commit's time, of nobody, under a
number that follows from what it says.

    cargo sbom --output-format=cyclone_dx_json_1_6 | packaging/sbom.py
"""

import json
import os
import sys
import time
import uuid

sbom = json.load(sys.stdin)
metadata = sbom["metadata"]
# Whoever was logged in, and the directory of the build.
metadata.pop("authors", None)
(ours,) = metadata["component"]["components"]
metadata["component"] = ours | {"type": "application"}
metadata["timestamp"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(os.environ["SOURCE_DATE_EPOCH"])))
sbom["components"].sort(key=lambda component: component["bom-ref"])
for dependency in sbom["dependencies"]:
    dependency.get("dependsOn", []).sort()
sbom["dependencies"].sort(key=lambda dependency: dependency["ref"])
del sbom["serialNumber"]
text = json.dumps(sbom, sort_keys=True)
sbom["serialNumber"] = uuid.uuid5(uuid.NAMESPACE_URL, f"https://github.com/sidewire/sidewire#{text}").urn
print(json.dumps(sbom, indent=2, sort_keys=True))
