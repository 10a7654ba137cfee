// Package paths names the default places on a node, once for all programs and tests. It refuses to look at any of them.
package paths

// Of the agent and the plugin (FHS: /run is lost at reboot, as the rules are; /var/lib is kept).
const (
	ConfigFile = "/etc/config/ip-masq-agent"
	StateDir   = "/run/ip-masq-agent"
	DataDir    = "/var/lib/ip-masq-agent"
)

// Of the container runtime.
const (
	CNIBinDir   = "/opt/cni/bin"
	CNIConfDir  = "/etc/cni/net.d"
	CNICacheDir = "/var/lib/cni"
)

// Where probes and metrics are served: on loopback, so that nothing can be reached from outside of the node.
const (
	AgentAddress     = "127.0.0.1:10278"
	InstallerAddress = "127.0.0.1:10279"
)
