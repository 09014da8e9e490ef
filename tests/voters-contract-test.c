/* The register with voters, asked by its own engine: the contract that all engines keep to. */
#include "tests/voter-rig.h"

int main(void) {
    struct rig *rig = rig_new(2, 1000);
    struct contract contract = rig_contract(rig);
    contract_children(&contract);
    plan_lazy();
    register_contract(&contract);
    rig_end_all(rig);
    return 0;
}
