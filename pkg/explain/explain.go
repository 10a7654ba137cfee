// Package explain says what happens to the first packet of a connection: what the policy wants and where that is written, what
// the kernel's rules do, by which interface and with which address the packet leaves, and what stands in the way.
//
// Two answers that do not depend on each other are compared: policy.Decide says what is wanted, which is a pure function, and
// pkg/conflicts follows the packet through the rules that the kernel holds, ip-masq's and those of other software. Where
// something decides that nobody knows of the packet, or a rule is not understood, the answer is "unknown": the package refuses to
// guess. It refuses to change anything, too, and to send packets.
package explain

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/backend/iptables"
	"github.com/ip-masq/ip-masq-cni/pkg/config"
	"github.com/ip-masq/ip-masq-cni/pkg/conflicts"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// Node is what the answer is found in: the policy in force and the pods as values, the kernel of the calling thread's network
// namespace.
type Node struct {
	Policy policy.Policy
	// Config knows where the policy's parts stand; PolicyFile is the file of a policy that was not made of the present files.
	Config     config.Config
	PolicyFile string
	ConfigErr  error // what is wrong with the present files

	Addresses   []netip.Addr // the node's own, of which egress groups and pods choose
	Attachments []attachment.Attachment
	OptedOut    []attachment.Attachment
	Bypassing   []attachment.Attachment // their packets do not pass the node
	Runtime     []attachment.Attachment // those that the container runtime knows, for their names

	AddressesErr, RecordsErr error // why some of them may be missing

	// Backend is what is in use, nil where nothing is, and then BackendErr says why.
	Backend    backend.Backend
	BackendErr error
	Features   backend.Features
	Host       iptables.Host // whose iptables programs are used
}

// Explain answers a question. The error is for what cannot be asked, such as a pod that is not there; what cannot be looked at is
// an obstacle.
func (n Node) Explain(ctx context.Context, q Question) (Answer, error) {
	if err := n.resolve(&q); err != nil {
		return Answer{}, err
	}
	way := routeOf(q.Source, q.Destination)
	j := n.judge(q, way)
	a := newAnswer(q, j)
	n.where(&a, j)
	if n.ConfigErr != nil {
		a.obstacle(ConfigBad, "the configuration is bad, so that another policy is in force: %s", strings.ReplaceAll(n.ConfigErr.Error(), "\n", "; "))
	}
	n.refusals(&a, q, way, j)
	n.lacks(&a, q, j)
	steps, err := conflicts.Follow(ctx, conflicts.Query{Host: n.Host, Policy: n.Policy}, packetOf(q))
	if err != nil {
		a.obstacle(NotFollowed, "not all rules could be read: %s", err)
	}
	if way.local {
		a.toNode(q, steps)
		return a, nil
	}
	steps, redirected := a.redirected(steps)
	a.compare(j, steps)
	n.countPrefix(ctx, &a, q)
	if a.Kernel != Equal {
		n.defects(ctx, &a, q, j)
	}
	a.others(steps)
	if !redirected {
		a.leaves(q, way, steps)
	}
	a.connections(q)
	return a, nil
}

func packetOf(q Question) conflicts.Packet {
	return conflicts.Packet{Source: q.Source, Destination: q.Destination, Protocol: protocols[q.Protocol], Port: q.Port}
}

func newAnswer(q Question, j judgement) Answer {
	a := Answer{
		APIVersion: APIVersion, Source: q.Source, Destination: q.Destination,
		Verdict: j.Verdict, Cause: j.Cause, Reason: j.reason(q), Pool: j.pool, Kernel: Unknown, Obstacles: []Obstacle{},
	}
	if j.Group > 0 {
		a.Group = &j.Group
	}
	if j.Cause == policy.ByWhenMissing {
		then := whenMissing(j.group())
		a.WhenMissing = &then
	}
	if q.Port != 0 {
		a.Port = &q.Port
	}
	if q.Protocol != "" {
		a.Protocol = &q.Protocol
	}
	if q.Pod.Name != "" {
		a.Pod = &q.Pod
	}
	if j.Prefix.IsValid() {
		a.Prefix = &j.Prefix
	}
	return a
}

func (a *Answer) obstacle(what What, format string, args ...any) {
	o := Obstacle{what, fmt.Sprintf(format, args...)}
	if !slices.Contains(a.Obstacles, o) {
		a.Obstacles = append(a.Obstacles, o)
	}
}

// where names the line that decides.
func (n Node) where(a *Answer, j judgement) {
	if !j.Prefix.IsValid() && j.Cause != policy.ByInterface {
		return
	}
	if n.PolicyFile != "" {
		a.File = &n.PolicyFile
		return
	}
	at, found := n.Config.Locate(j.Prefix)
	if j.Cause == policy.ByInterface {
		at, found = n.Config.LocateKey("outputInterfaces")
	}
	if !found {
		return
	}
	a.Key = &at.Key
	if at.File != "" {
		a.File, a.Line = &at.File, &at.Line
	} else {
		a.Reason += ", one of the defaults"
	}
}

// refusals are why the policy does not apply to the packet.
func (n Node) refusals(a *Answer, q Question, way route, j judgement) {
	for _, direct := range n.Bypassing {
		if slices.Contains(direct.Addresses, q.Source) {
			a.obstacle(BypassesNode, "%s", attachment.Bypassing(direct.Bypass))
			return
		}
	}
	switch j.Cause {
	case policy.ByFamily:
		a.obstacle(FamilyOff, "%s is off: start the agent with --enable-ipv6 to masquerade it", q.family())
	case policy.BySource:
		if n.RecordsErr != nil {
			a.obstacle(NotFollowed, "not all records of attached pods could be read: %s", n.RecordsErr)
		}
		if isOf(n.OptedOut, q.Source) {
			a.obstacle(OptedOut, "the pod opted out of masquerading, by its annotation or its network's key \"masquerade\"")
			return
		}
		if way.own {
			a.obstacle(NotAttached, "%s is an address of the node itself, whose traffic the policy governs only with nodeTraffic, or sources all", q.Source)
			return
		}
		if isOf(n.Runtime, q.Source) {
			a.obstacle(NotAttached, "the runtime knows the pod, and it is not attached: is the plugin ip-masq in the conflist of its network? ip-masq-agent sync attaches it then")
			return
		}
		a.obstacle(NotAttached, "no attached pod has the address %s: is it a pod's, and is the plugin ip-masq in its network's conflist?", q.Source)
	case policy.ByLocal:
		a.obstacle(LocalDestination, "packets to the node itself are not masqueraded")
	case policy.ByMulticast:
		a.obstacle(Multicast, "multicast from pods is not masqueraded")
	case policy.ByInterface:
		if j.packet.Output != "" {
			a.obstacle(InterfaceLeftOut, "what leaves by %s is not masqueraded: outputInterfaces leaves it out", j.packet.Output)
		}
	case policy.ByPrefix, policy.ByDefault, policy.ByAnnotation, policy.ByWhenMissing:
	}
}

// lacks are why the source address is not the one that somebody chose.
func (n Node) lacks(a *Answer, q Question, j judgement) {
	if n.AddressesErr != nil {
		a.obstacle(NotFollowed, "the node's addresses could not be read: %s", n.AddressesErr)
	}
	for _, name := range refusedFor(n.Policy.Settings, slices.Concat(n.Attachments, n.OptedOut, n.Bypassing), q.Source) {
		a.obstacle(AnnotationRefused, "the pod's annotation %s counts for nothing, because podAnnotations does not allow it, or did not when the pod started", name)
	}
	if j.Verdict != policy.Keep && len(j.packet.Chosen) > 0 && j.Cause != policy.ByAnnotation {
		a.obstacle(AddressMissing, "the pod's annotation %s counts for nothing, because this node has no %s address in %s",
			policy.SourceAddressesAnnotation, q.family(), list(j.packet.Chosen))
	}
	if j.Cause == policy.ByWhenMissing {
		a.obstacle(AddressMissing, "this node has no %s address in the sourceAddresses of egress group %d: %s", q.family(), j.Group, list(j.group().SourceAddresses))
	}
}

// compare holds what the rules managed by ip-masq do against the policy.
func (a *Answer) compare(j judgement, steps []conflicts.Step) {
	var managed []stage
	for _, s := range steps {
		if s.Roots > 0 {
			managed = append(managed, stage{s.Priority, s.Managed})
		}
	}
	ends := outcome(managed)
	for _, end := range ends {
		if end.Managed {
			a.Rule, a.Counter = &end.Rule, &Counter{end.Packets, end.Bytes}
			break
		}
	}
	kernel, certain := effectOf(ends)
	to := ends[0].Address
	switch {
	case !certain || j.Verdict == policy.Translate && kernel == conflicts.Translates && !to.IsValid():
		a.Kernel = Unknown
	case kernel == wanted[j.Verdict] && (j.Verdict != policy.Translate || to == j.Address):
		a.Kernel = Equal
	default:
		a.Kernel = Differs
	}
}

// countPrefix adds up what counts the prefix that decides.
func (n Node) countPrefix(ctx context.Context, a *Answer, q Question) {
	if a.Rule == nil || a.Prefix == nil || n.Backend == nil {
		return
	}
	counters, err := n.Backend.Counters(ctx, n.Policy.Settings, q.family())
	if err != nil {
		return // it is not counted then, which is no obstacle
	}
	for _, c := range counters {
		if c.Prefix != *a.Prefix {
			continue
		}
		if a.PrefixCounter == nil {
			a.PrefixCounter = &Counter{}
		}
		a.PrefixCounter.Packets += c.Packets
		a.PrefixCounter.Bytes += c.Bytes
	}
}

var wanted = map[policy.Verdict]conflicts.Effect{
	policy.Keep: conflicts.Passes, policy.Masquerade: conflicts.Masquerades, policy.Translate: conflicts.Translates, policy.Drop: conflicts.Drops,
}

// defects name what is wrong with the rules managed by ip-masq.
func (n Node) defects(ctx context.Context, a *Answer, q Question, j judgement) {
	if n.Backend == nil {
		a.obstacle(NoBackend, "no backend is in use, so that nothing is masqueraded: %s", n.BackendErr)
		return
	}
	s := n.Policy.Settings
	s.RandomFully = s.RandomFully && n.Features.RandomFully
	seen, err := n.Backend.Observe(ctx, s, q.family())
	if err != nil || len(seen.Tables) != 1 {
		a.Kernel = Unknown
		a.obstacle(NotFollowed, "the rules managed by ip-masq could not be read: %v", err)
		return
	}
	t, before := seen.Tables[0], len(a.Obstacles)
	if j.Verdict != policy.Keep {
		hasPod := slices.ContainsFunc(t.Pods, func(p rulesetPod) bool { return p.Address == q.Source })
		switch {
		case t.Root == 0:
			a.obstacle(RootMissing, "the rule that leads to chain %s is missing: run ip-masq-agent sync", s.Chain)
		case s.Sources == policy.SourcesPods && j.packet.Attached && !hasPod:
			a.obstacle(PodMissing, "the rule for %s is missing: run ip-masq-agent sync", q.Source)
		}
		switch t.Chain {
		case backend.ChainMissing:
			a.obstacle(ChainMissing, "chain %s is missing: run ip-masq-agent sync", s.Chain)
		case backend.ChainEmpty:
			a.obstacle(ChainEmpty, "chain %s is drained: run ip-masq-agent sync", s.Chain)
		}
	}
	if a.Kernel == Differs && len(a.Obstacles) == before {
		a.obstacle(RulesDiffer, "the rules managed by ip-masq are not those of the policy: run ip-masq-agent sync, and ip-masq-agent status lists the difference")
	}
}

// toNode is for a packet that stays, and so never meets the rules that translate sources. Rules that give it another destination,
// such as those of node ports, ask for the node's own addresses in ways that are not followed.
func (a *Answer) toNode(q Question, steps []conflicts.Step) {
	a.Kernel, a.SourceAfter = Equal, &q.Source
	for _, s := range steps {
		if s.BeforeRouting {
			a.SourceAfter = nil
			a.obstacle(Redirected, "the destination perhaps becomes another one before the policy is asked, as for a node port: %s has rules", s.Place)
		}
	}
}

// redirected names a rule that gives the packet another destination, as for a service: all else would be about another packet, and
// where it goes is not known then. It returns the steps that are left.
func (a *Answer) redirected(steps []conflicts.Step) (rest []conflicts.Step, is bool) {
	for _, s := range steps {
		if !s.BeforeRouting {
			rest = append(rest, s)
			continue
		}
		for _, end := range s.Ends {
			if end.Effect == conflicts.Passes {
				continue
			}
			is = true
			may, ask := "", "one of the addresses behind it"
			if len(s.Ends) > 1 {
				may = "perhaps "
			}
			if end.Address.IsValid() {
				ask = "--dst " + end.Address.String()
			}
			a.obstacle(Redirected, "the destination %sbecomes another one before the policy is asked, which is about %s: %s, by %s: %s", may, ask, end.Where, end.Owner, end.Rule)
		}
	}
	return rest, is
}

// others names rules of other software that the packet meets and that decide.
func (a *Answer) others(steps []conflicts.Step) {
	steps = asked(steps)
	for i, s := range steps {
		for _, end := range s.Ends {
			may := ""
			if len(s.Ends) > 1 || tied(steps, i) {
				may = "perhaps "
			}
			rule := fmt.Sprintf("%s, by %s: %s", end.Where, end.Owner, end.Rule)
			switch {
			case end.Effect == conflicts.Unknown:
				a.obstacle(NotFollowed, "a rule cannot be followed: %s: %s", end.Where, end.Rule)
			case end.Managed:
			case end.Effect == conflicts.Masquerades || end.Effect == conflicts.Translates:
				a.obstacle(OtherNAT, "another program %stranslates the packet: %s", may, rule)
			case end.Effect == conflicts.Untracks:
				a.obstacle(Untracked, "another program %skeeps the packet from being tracked, and with it from being masqueraded: %s", may, rule)
			case end.Effect == conflicts.Drops:
				a.obstacle(OtherDrop, "another program %sdrops the packet: %s", may, rule)
			case end.Exempts():
				a.obstacle(OtherAccept, "another program's rule %skeeps the packet from ip-masq's rules behind it: %s", may, rule)
			}
		}
	}
}

// leaves says by which interface the packet leaves the node, and from which address.
func (a *Answer) leaves(q Question, way route, steps []conflicts.Step) {
	ends := outcome(tracking(steps))
	effect, certain := effectOf(ends)
	if way.output != "" && (effect != conflicts.Drops || !certain) {
		a.Interface = &way.output
	}
	switch {
	case way.err != nil:
		a.obstacle(NoRoute, "no route leads to %s: %s", q.Destination, way.err)
		return
	case !way.forwarded:
		a.obstacle(ForwardingOff, "the node does not forward %s packets that come in by %s (net.ipv4.ip_forward, net.ipv6.conf.all.forwarding)", q.family(), way.input)
	}
	switch {
	case !certain || effect == conflicts.Unknown || effect == conflicts.Drops:
	case effect == conflicts.Passes || effect == conflicts.Untracks:
		a.SourceAfter = &q.Source
	case effect == conflicts.Translates:
		if to := ends[0].Address; to.IsValid() {
			a.SourceAfter = &to
		}
	case effect == conflicts.Masquerades:
		to, err := way.addressFor(q.Destination)
		if err != nil {
			a.obstacle(NoAddress, "%s gives no address to masquerade with: %s", way.output, err)
			return
		}
		a.SourceAfter = &to
	}
}

// connections names a connection on record that has another translation than a new one would get, since that stays until it ends.
func (a *Answer) connections(q Question) {
	found, err := connections(q)
	if err != nil {
		a.obstacle(NotFollowed, "the tracked connections could not be read: %s", err)
		return
	}
	var other []tracked
	for _, c := range found {
		if a.SourceAfter != nil && c.answer.Dst.Addr() != *a.SourceAfter || c.answer.Src.Addr() != q.Destination {
			other = append(other, c)
		}
	}
	if len(other) == 0 {
		return
	}
	more := ""
	if len(other) > 1 {
		more = fmt.Sprintf(" (and %d more)", len(other)-1)
	}
	c := other[0]
	a.obstacle(Connection, "a tracked connection from %s to %s is seen as %s by %s and stays so until it ends%s",
		c.call.Src, c.call.Dst, c.answer.Dst, c.answer.Src, more)
}
