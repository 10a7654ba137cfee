package explain

import (
	"net/netip"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// APIVersion marks the documents of this form.
const APIVersion = "ip-masq/v1"

// Answer is what explain says about one packet. What is not known is null.
type Answer struct {
	APIVersion  string          `json:"apiVersion"`
	Daemon      Daemon          `json:"daemon"`
	Source      netip.Addr      `json:"src"`
	Pod         *attachment.Pod `json:"pod"`
	Destination netip.Addr      `json:"dst"`
	Port        *uint16         `json:"dstPort"`
	Protocol    *string         `json:"proto"`

	// Verdict is the policy's, and Cause the part of it that decides: a prefix of the configuration, or what the reason says.
	Verdict policy.Verdict `json:"verdict"`
	Cause   policy.Cause   `json:"cause"`
	Prefix  *netip.Prefix  `json:"prefix"`
	Reason  string         `json:"reason"`
	// Group is the egress group that the prefix is of, counted from 1, and WhenMissing what it says where the node has none of its
	// addresses. Pool are the node's addresses of which one was chosen, where one was.
	Group       *int                `json:"group"`
	Pool        []netip.Addr        `json:"pool"`
	WhenMissing *policy.WhenMissing `json:"whenMissing"`
	// File and Line are where that which decides stands, and Key is what it belongs to. Of a default there is the key alone.
	File *string `json:"file"`
	Line *int    `json:"line"`
	Key  *string `json:"key"`

	// Kernel says whether the rules managed by ip-masq do what the policy says, and Rule is the one that decides.
	Kernel  Comparison `json:"kernel"`
	Rule    *string    `json:"rule"`
	Counter *Counter   `json:"counter"`
	// PrefixCounter is what the prefix had, where it is counted: on nftables it shares its rule with others.
	PrefixCounter *Counter `json:"prefixCounter"`

	// Interface is where the packet leaves the node, and SourceAfter the address that it has then, whoever's rule gives it.
	Interface   *string     `json:"interface"`
	SourceAfter *netip.Addr `json:"source"`

	Obstacles []Obstacle `json:"obstacles"`
}

// Daemon says who answered: one that runs and responds, or else the command, which then read node and kernel itself.
type Daemon struct {
	Running    bool `json:"running"`
	Responding bool `json:"responding"`
}

// Counter is what a rule counted.
type Counter struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// Comparison is what comparing the kernel with the policy gives.
type Comparison string

// The comparisons. Unknown means that the kernel could not be read, or does what cannot be followed.
const (
	Equal   Comparison = "equal"
	Differs Comparison = "differs"
	Unknown Comparison = "unknown"
)

// Obstacle is something because of which the packet may be treated otherwise than one expects.
type Obstacle struct {
	What   What   `json:"what"`
	Detail string `json:"detail"`
}

// What names a kind of obstacle.
type What string

// The kinds. The first group is why the policy does not apply, the second why an address that somebody chose is not taken; the
// third are defects of the rules managed by ip-masq; the fourth is other software; the last the node.
const (
	NotAttached      What = "not-attached"
	OptedOut         What = "opted-out"
	BypassesNode     What = "bypasses-node"
	FamilyOff        What = "ipv6-off"
	LocalDestination What = "local-destination"
	Multicast        What = "multicast"
	InterfaceLeftOut What = "interface-left-out"

	AnnotationRefused What = "annotation-refused"
	AddressMissing    What = "address-missing"

	ConfigBad    What = "config-bad"
	NoBackend    What = "no-backend"
	RootMissing  What = "root-rule-missing"
	ChainMissing What = "chain-missing"
	ChainEmpty   What = "chain-empty"
	PodMissing   What = "pod-rule-missing"
	RulesDiffer  What = "rules-differ"

	Redirected  What = "destination-translated"
	OtherNAT    What = "other-nat"
	OtherAccept What = "other-accept"
	OtherDrop   What = "other-drop"
	Untracked   What = "untracked"
	NotFollowed What = "not-followed"

	Connection    What = "connection"
	ForwardingOff What = "forwarding-off"
	NoRoute       What = "no-route"
	NoAddress     What = "no-address"
)

// Obstacles lists the kinds, for the reference.
func Obstacles() []What {
	return []What{
		NotAttached, OptedOut, BypassesNode, FamilyOff, LocalDestination, Multicast, InterfaceLeftOut,
		AnnotationRefused, AddressMissing, ConfigBad, NoBackend, RootMissing, ChainMissing, ChainEmpty, PodMissing, RulesDiffer,
		Redirected, OtherNAT, OtherAccept, OtherDrop, Untracked, NotFollowed, Connection, ForwardingOff, NoRoute, NoAddress,
	}
}
