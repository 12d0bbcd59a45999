"""The marks by which node-agent and bgp-announcer know a kernel route as vmfabric's."""

KERNEL_PROTOCOL = 86
"""rtm_protocol of our routes (rtnetlink(7)); unassigned in /etc/iproute2/rt_protos. Not one of FRR's own, 186 to
198: zebra takes such a route for one that it made itself, and tells bgpd nothing of it."""

ROUTE_METRIC = 18600
"""Metric of our host routes: FRR sees the metric of a kernel route, but not its protocol number. Each of these
metrics has an entry in the announcer's route-map (docs/decisions/0002)."""

FORWARD_METRIC = 18550
"""Of a route to the node that the guest went to; it wins over the one to the port that the guest left."""

PREFERRED_METRIC = 18500
"""Of a route to a guest that has just come, while the node that it left still announces it too."""

EVACUATED_METRIC = 18575
"""Of a route to a guest that was started anew while the node that had it is lost, and may announce it still."""

RESTORED_METRIC = 18650
"""Of a route that a node has made anew from its own memory: nobody has said yet that the VM is still there."""

RESTORED_REFUGE_METRIC = 18625
"""The same of a VM that was evacuated to this node: the lost node may remember it too, and know less."""

SUBNET_METRIC = 18700
"""Of a route of a routing node to a whole subnet, which is no VM's own."""

UNASSIGNED_METRIC = 186
"""Of a route to nowhere instead of the network of a routing node's IPv6 address, to which the kernel gives 256."""

SUBNET_METRICS = frozenset({SUBNET_METRIC, UNASSIGNED_METRIC})

LOCAL_PREFERENCE = 100
"""BGP's own default (RFC 4271, 9.1.1 leaves it to configuration; FRR takes 100)."""

PREFERRED_LOCAL_PREFERENCE = 200
"""Of a route with PREFERRED_METRIC."""

EVACUATED_LOCAL_PREFERENCE = 150
"""Of a route with EVACUATED_METRIC: more than what a lost node may still announce, less than a migration's target."""

GOING_DOWN_LOCAL_PREFERENCE = 0
"""Of every route of a node that is about to go down (RFC 8326)."""

RESTORED_LOCAL_PREFERENCE = 50
"""Of a route with RESTORED_METRIC: a VM that was moved meanwhile keeps its new path."""

RESTORED_REFUGE_LOCAL_PREFERENCE = 60
"""Of a route with RESTORED_REFUGE_METRIC: more than what the lost node remembers, less than what anybody knows."""
