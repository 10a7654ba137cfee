package status

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/portbudget"
)

// Checks is the document of `ip-masq-agent check`.
type Checks struct {
	APIVersion string  `json:"apiVersion"`
	Checks     []Check `json:"checks"`
}

// Check is one question and its answer.
type Check struct {
	ID      string  `json:"id"`
	Status  string  `json:"status"`
	Message string  `json:"message"`
	Fix     *string `json:"fix"` // null where all is well
}

// The answers, from the best to the worst.
const (
	OK   = "ok"
	Warn = "warn"
	Fail = "fail"
)

// Exit statuses of check.
const (
	ExitFail = 1
	ExitWarn = 3
)

// Exit is the exit status for the worst answer.
func (c Checks) Exit() int {
	exit := 0
	for _, check := range c.Checks {
		switch check.Status {
		case Fail:
			return ExitFail
		case Warn:
			exit = ExitWarn
		}
	}
	return exit
}

// Judge answers every question from a status. own is the version of the program that asks, which stands for the daemon's where
// none runs.
func Judge(s Status, own string) Checks {
	j := judge{Status: s, own: own}
	j.agent()
	j.plugin()
	j.versions()
	j.backend()
	j.config()
	j.kernel()
	j.pods()
	j.egress()
	j.conflicts()
	j.forwarding()
	j.conntrack()
	j.ports()
	return Checks{APIVersion, j.checks}
}

type judge struct {
	Status
	own    string
	checks []Check
}

func (j *judge) ok(id, message string, args ...any) {
	j.checks = append(j.checks, Check{id, OK, fmt.Sprintf(message, args...), nil})
}

func (j *judge) bad(id, status, fix, message string, args ...any) {
	j.checks = append(j.checks, Check{id, status, fmt.Sprintf(message, args...), &fix})
}

func (j *judge) agent() {
	const running, current = "agent-running", "agent-current"
	d := j.Daemon
	switch {
	case !d.Running:
		j.bad(running, Fail, "start the DaemonSet or the service; rules stay, and are not repaired meanwhile", "no agent runs on this node")
		j.bad(current, Warn, "start the agent", "no agent keeps the rules current")
		return
	case !d.Responding:
		j.bad(running, Fail, fmt.Sprintf("look at its log, and end it%s: another one takes over", ofPID(d.PID)), "the agent holds its lock and does not answer")
		j.bad(current, Warn, "end the agent that does not answer", "whether the agent is current is not known")
		return
	}
	j.ok(running, "the agent runs since %s", stamp(d.Since))
	switch {
	case d.LastSync == nil:
		j.bad(current, Warn, "ask again in a moment", "the agent has not synced yet")
	case d.LastSync.Result != ResultOK:
		j.bad(current, Warn, "do what the error says; the agent tries again by itself", "the last sync failed: %s", text(d.LastSync.Error))
	case d.Current == nil || !*d.Current:
		j.bad(current, Warn, fmt.Sprintf("look at the agent's log, and end it%s where it stays so", ofPID(d.PID)), "the last sync was at %s, longer ago than the interval between two", stamp(&d.LastSync.Time))
	default:
		j.ok(current, "the last sync was at %s", stamp(&d.LastSync.Time))
	}
}

func (j *judge) plugin() {
	const listed, answers = "plugin-listed", "plugin-answers"
	install := "run ip-masq-installer install on the node, or look at the log of its container"
	p := j.Plugin
	switch {
	case p.Listed == nil || !*p.Listed:
		message := "the conflist that the runtime loads does not name ip-masq"
		if p.Error != nil && p.Conflist == nil {
			message = "the runtime has no conflist that names ip-masq: " + *p.Error
		} else if p.Conflist != nil {
			message = *p.Conflist + ", which the runtime loads, does not name ip-masq"
		}
		j.bad(listed, Fail, install, "%s", message)
	default:
		j.ok(listed, "%s names ip-masq at position %d", text(p.Conflist), *p.Position)
	}
	switch {
	case p.Answers == nil || !*p.Answers:
		j.bad(answers, Fail, install, "the plugin does not answer: %s", text(p.Error))
	default:
		j.ok(answers, "the plugin answers")
	}
}

func (j *judge) versions() {
	const id = "versions-agree"
	agent := j.own
	if j.Daemon.Version != nil {
		agent = *j.Daemon.Version
	}
	switch plugin := j.Plugin.Version; {
	case plugin == nil:
		j.bad(id, Warn, "install the plugin of the agent's release", "the agent is %s, and the plugin does not say its version", agent)
	case *plugin != agent:
		j.bad(id, Warn, "install agent and plugin of one release", "the agent is %s and the plugin %s", agent, *plugin)
	default:
		j.ok(id, "agent and plugin are %s", agent)
	}
}

func (j *judge) backend() {
	const id = "backend-works"
	b := j.Backend
	switch {
	case b.Error != nil:
		j.bad(id, Fail, "do what the error says: until then no pod can start", "a pod could not be attached now: %s", *b.Error)
	case b.Kind == nil:
		j.ok(id, "no backend is chosen yet; the first pod or the agent will find one")
	default:
		j.ok(id, "%s: %s", *b.Kind, text(b.Reason))
	}
}

func (j *judge) config() {
	const id = "config-valid"
	if !j.Config.Valid {
		j.bad(id, Fail, "correct the file; check it with ip-masq-agent lint", "%s; in force is %s", text(j.Config.Error), j.Policy.Reason)
		return
	}
	j.ok(id, "in force is %s", j.Policy.Reason)
}

func (j *judge) kernel() {
	const id = "kernel-equal"
	switch {
	case j.Drift == nil:
		j.bad(id, Fail, "see the error, and run ip-masq-agent sync", "kernel and policy could not be compared%s", j.why(PartKernel))
	case len(j.Drift) > 0:
		j.bad(id, Fail, "run ip-masq-agent sync; status lists every difference", "the kernel differs from the policy in %s, first: %s", count(len(j.Drift), "object"), j.Drift[0])
	default:
		j.ok(id, "the kernel is equal to the policy")
	}
}

func (j *judge) pods() {
	const id = "pods-covered"
	p := j.Pods
	switch {
	case p.Uncovered == nil:
		j.bad(id, Fail, "give the runtime's directory with --cni-cache-dir", "what the runtime knows of pods could not be read%s", j.why(PartRuntime))
	case len(p.Uncovered) > 0:
		j.bad(id, Fail, "run ip-masq-agent sync, or restart these pods", "%s of the runtime not covered: %s", count(len(p.Uncovered), "pod"), named(p.Uncovered))
	default:
		j.ok(id, "%s attached, %d opted out, and every pod of the runtime is covered", count(len(p.Attached), "pod"), len(p.OptedOut))
	}
}

func (j *judge) conflicts() {
	const id = "no-conflicts"
	switch {
	case len(j.Conflicts) > 0:
		c := j.Conflicts[0]
		j.bad(id, Warn, c.Fix, "%s of other software, first: %s, %s: %s", count(len(j.Conflicts), "conflict"), c.Owner, c.Where, c.Rule)
	case j.why(PartConflicts) != "":
		j.bad(id, Warn, "see the error", "not everything could be searched for conflicts%s", j.why(PartConflicts))
	default:
		j.ok(id, "no rule of other software contradicts the policy")
	}
}

func (j *judge) forwarding() {
	const id = "ip-forward"
	var off, unread []string
	keys := map[policy.Family]string{policy.IPv4: "net.ipv4.ip_forward", policy.IPv6: "net.ipv6.conf.all.forwarding"}
	for _, f := range j.Policy.Settings.Families() {
		forwards, known := j.Node.IPForward[f]
		switch {
		case !known:
			unread = append(unread, keys[f])
		case !forwards:
			off = append(off, keys[f])
		}
	}
	switch {
	case len(off) > 0:
		j.bad(id, Fail, "sysctl -w "+strings.Join(off, "=1 ")+"=1", "the node does not forward packets: %s is 0", strings.Join(off, " and "))
	case len(unread) > 0:
		j.bad(id, Fail, "run the command on the node", "%s could not be read", strings.Join(unread, " and "))
	default:
		j.ok(id, "the node forwards packets")
	}
}

// From these shares on of what is there, there is no room.
const (
	warnShare = 0.80
	failShare = 0.95
)

func room(share float64) string {
	switch {
	case share >= failShare:
		return Fail
	case share >= warnShare:
		return Warn
	}
	return OK
}

func (j *judge) conntrack() {
	const id = "conntrack-room"
	entries, limit := j.Node.Conntrack, j.Node.ConntrackIn
	if entries == nil || limit == nil || *limit == 0 {
		j.ok(id, "no connection is tracked yet")
		return
	}
	share := float64(*entries) / float64(*limit)
	if status := room(share); status != OK {
		j.bad(id, status, "raise net.netfilter.nf_conntrack_max", "%d of %d connections are tracked (%.0f %%)", *entries, *limit, 100*share)
		return
	}
	j.ok(id, "%d of %d connections are tracked", *entries, *limit)
}

// ports is no question where nobody measures.
func (j *judge) ports() {
	const id = "ports-room"
	if j.Ports == nil {
		return
	}
	status, message, fix := portbudget.Check(*j.Ports)
	if status == OK {
		j.ok(id, "%s", message)
		return
	}
	j.bad(id, status, fix, "%s", message)
}

// why is the error of a part that could not be looked at, after a colon.
func (j *judge) why(part string) string {
	if i := slices.IndexFunc(j.Unknown, func(u Unknown) bool { return u.Part == part }); i >= 0 {
		return ": " + j.Unknown[i].Error
	}
	return ""
}

func ofPID(pid *int) string {
	if pid == nil {
		return ""
	}
	return fmt.Sprintf(" (process %d)", *pid)
}

func stamp(t *time.Time) string {
	if t == nil {
		return "an unknown time"
	}
	return t.UTC().Format(time.RFC3339)
}

func text(s *string) string {
	if s == nil {
		return "unknown"
	}
	return *s
}

func count(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

// shown bounds how many names one line has.
const shown = 5

func named(pods []Pod) string {
	var names []string
	for i, p := range pods {
		if i == shown {
			names = append(names, fmt.Sprintf("and %d more", len(pods)-shown))
			break
		}
		names = append(names, p.title())
	}
	return strings.Join(names, ", ")
}

// title is NAMESPACE/NAME, or the container's id where the runtime did not name the pod.
func (p Pod) title() string {
	if p.Name == nil {
		return p.ContainerID
	}
	if p.Namespace == nil {
		return *p.Name
	}
	return *p.Namespace + "/" + *p.Name
}
