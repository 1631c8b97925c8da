"""sev-snp-measure in one process: a JSON object a line in, one a line out.

In: the arguments of guest.calc_launch_digest by name, or {"hash_of": PATH} for calc_snp_ovmf_hash.
Out: {"digest": HEX} or {"error": TEXT}.
"""
import json
import sys

from sevsnpmeasure import guest, vcpu_types, vmm_types
from sevsnpmeasure.sev_mode import SevMode


def answer(launch):
    if "hash_of" in launch:
        return guest.calc_snp_ovmf_hash(launch["hash_of"])
    if "cpu" in launch:
        signature = vcpu_types.cpu_sig(*launch["cpu"])
    elif "vcpu_type" in launch:
        signature = vcpu_types.CPU_SIGS[launch["vcpu_type"]]
    else:
        signature = launch.get("vcpu_sig")
    return guest.calc_launch_digest(
        SevMode.from_str(launch["mode"]),
        launch["vcpus"],
        signature,
        launch["ovmf"],
        launch.get("kernel"),
        launch.get("initrd"),
        launch.get("append"),
        launch["guest_features"],
        launch.get("snp_ovmf_hash"),
        vmm_types.VMMType[launch["vmm_type"]],
        False,
        launch.get("svsm"),
        launch.get("vars_size", 0),
    )


if len(sys.argv) > 1 and sys.argv[1] == "types":
    print(json.dumps(vcpu_types.CPU_SIGS))
else:
    for line in sys.stdin:
        try:
            print(json.dumps({"digest": answer(json.loads(line)).hex()}))
        except Exception as error:  # whatever it refuses with
            print(json.dumps({"error": f"{type(error).__name__}: {error}"}))
