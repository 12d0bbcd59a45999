"""The marks by which node-agent and bgp-announcer know a kernel route as vmfabric's."""

KERNEL_PROTOCOL = 86
"""rtm_protocol of our routes (rtnetlink(7)); unassigned in /etc/iproute2/rt_protos. Not one of FRR's own, 186 to
198: zebra takes such a route for one that it made itself, and tells bgpd nothing of it."""

ROUTE_METRIC = 18600
"""Metric of our host routes: FRR sees the metric of a kernel route, but not its protocol number."""
