package soak

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// action is something that happens to a node. prepare draws what is random and returns what then runs beside the others of a
// round; nil where it cannot happen now. Of those that share a resource one at most is in a round.
type action struct {
	name      string
	weight    int
	resources string
	prepare   func(r *run, busy map[string]bool) func()
}

var actions []action

func init() { // actions name themselves in the tally
	actions = []action{
		{"ADD", 10, "", (*run).add},
		{"DEL", 6, "", (*run).del},
		{"killed ADD", 2, "", (*run).addKilled},
		{"killed DEL", 2, "", (*run).delKilled},
		{"repeated ADD", 2, "", (*run).addAgain},
		{"CHECK", 2, "", (*run).check},
		{"lost DEL", 1, "", (*run).loseDel},
		{"lost record", 2, "", (*run).loseRecord},
		{"pod from before", 1, "", (*run).podFromBefore},
		{"flush by other software", 4, "others", (*run).flush},
		{"rule of other software", 1, "agent", (*run).addRule},
		{"config change", 3, "config", (*run).changeConfig},
		{"bad config", 1, "config", (*run).breakConfig},
		{"resync", 2, "agent", (*run).hangUp},
		{"kill -9 of the agent", 2, "agent", (*run).killAgent},
		{"IPv6 switched", 1, "agent config", (*run).switchIPv6},
		{"backend switch", 1, "agent config", (*run).switchBackend},
		{"lock hold", 2, "lock", (*run).holdLock},
		{"disk full", 1, "disk", (*run).fillDisk},
		{"GC", 1, "gc", (*run).collect},
	}
}

// pause is when an action begins, within the first moments of a round.
func (r *run) pause() time.Duration { return time.Duration(r.rng.IntN(60)) * time.Millisecond }

// happen is one round: several actions at once.
func (r *run) happen() {
	busy, taken := map[string]bool{}, map[string]bool{}
	var running sync.WaitGroup
	var last func() // a GC speaks of all attachments, so no runtime calls it beside others
	var all []func()
	for range 2 + r.rng.IntN(7) {
		a := r.draw()
		if slices.ContainsFunc(strings.Fields(a.resources), func(resource string) bool { return taken[resource] }) {
			continue
		}
		do, wait := a.prepare(r, busy), r.pause()
		if do == nil {
			continue
		}
		for _, resource := range strings.Fields(a.resources) {
			taken[resource] = true
		}
		r.done[a.name]++
		if a.resources == "gc" {
			last = do
			continue
		}
		all = append(all, func() { time.Sleep(wait); do() })
	}
	for _, do := range all {
		running.Go(do)
	}
	running.Wait()
	if last != nil {
		last()
	}
}

func (r *run) draw() action {
	total := 0
	for _, a := range actions {
		total += a.weight
	}
	n := r.rng.IntN(total)
	for _, a := range actions {
		if n -= a.weight; n < 0 {
			return a
		}
	}
	panic("unreachable")
}

func (r *run) add(map[string]bool) func() {
	if len(r.model.pods) > 12 {
		return nil
	}
	p := r.newPod()
	return func() {
		got := r.plugin("ADD", p)
		r.note("ADD %s %v: %d %s", p.ContainerID, p.addrs, got.Code, firstLine(got.Stdout))
		if got.Code == 0 {
			r.known(p)
			return
		}
		r.undo(p)
	}
}

func (r *run) addAgain(busy map[string]bool) func() {
	p := r.take(busy)
	if p == nil {
		return nil
	}
	return func() { r.note("ADD %s again: %d", p.ContainerID, r.plugin("ADD", p).Code) }
}

func (r *run) addKilled(map[string]bool) func() {
	p, after, retry := r.newPod(), time.Duration(r.rng.IntN(40))*time.Millisecond, r.rng.IntN(2) == 0
	return func() {
		code := r.killed("ADD", p, after)
		r.note("ADD %s killed after %s: %d", p.ContainerID, after, code)
		if retry && r.plugin("ADD", p).Code == 0 {
			r.known(p)
			return
		}
		r.undo(p)
	}
}

func (r *run) del(busy map[string]bool) func() {
	p := r.take(busy)
	if p == nil {
		return nil
	}
	return func() {
		r.note("DEL %s", p.ContainerID)
		r.undo(p)
	}
}

func (r *run) delKilled(busy map[string]bool) func() {
	p, after := r.take(busy), time.Duration(r.rng.IntN(40))*time.Millisecond
	if p == nil {
		return nil
	}
	return func() {
		r.note("DEL %s killed after %s: %d", p.ContainerID, after, r.killed("DEL", p, after))
		r.undo(p)
	}
}

// check may fail while the rules are gone; what it must not do is to write, or to hang.
func (r *run) check(busy map[string]bool) func() {
	p := r.take(busy)
	if p == nil {
		return nil
	}
	return func() { r.note("CHECK %s: %d", p.ContainerID, r.plugin("CHECK", p).Code) }
}

func (r *run) loseDel(busy map[string]bool) func() {
	p, entryToo := r.take(busy), r.rng.IntN(2) == 0
	if p == nil {
		return nil
	}
	return func() {
		r.note("namespace of %s gone, entry too: %v", p.ContainerID, entryToo)
		path := r.cachePath(p)
		text, _ := os.ReadFile(path)
		r.forget(p)
		if !entryToo {
			_ = os.WriteFile(path, text, 0o600)
		}
	}
}

func (r *run) loseRecord(busy map[string]bool) func() {
	p := r.take(busy)
	if p == nil {
		return nil
	}
	return func() {
		r.note("record of %s lost", p.ContainerID)
		_ = os.Remove(filepath.Join(r.StateDir, "attachments", string(p.ID())+".json"))
	}
}

// podFromBefore was attached when the plugin was not in the conflist yet.
func (r *run) podFromBefore(map[string]bool) func() {
	p := r.newPod()
	return func() {
		r.note("%s was there before us", p.ContainerID)
		r.known(p)
	}
}

// collect is GC with a list that leaves out one pod.
func (r *run) collect(busy map[string]bool) func() {
	p := r.take(busy)
	if p == nil {
		return nil
	}
	return func() {
		var valid []string
		for _, q := range r.model.pods {
			if q != p {
				valid = append(valid, fmt.Sprintf(`{"containerID": %q, "ifname": %q}`, q.ContainerID, q.IfName))
			}
		}
		for _, q := range r.broken {
			valid = append(valid, fmt.Sprintf(`{"containerID": %q, "ifname": %q}`, q.ContainerID, q.IfName))
		}
		got := r.plugin("GC", p, `"cni.dev/valid-attachments": [`+strings.Join(valid, ", ")+`]`)
		r.note("GC without %s: %d %s", p.ContainerID, got.Code, firstLine(got.Stdout))
		r.forget(p)
		if got.Code != 0 {
			r.Errorf("round %d: GC: %s", r.round, got.Stdout)
		}
	}
}

func firstLine(text string) string {
	if i := strings.Index(text, `"msg"`); i >= 0 {
		text = text[i:]
	} else {
		return ""
	}
	line, _, _ := strings.Cut(text, "\n")
	return line
}

// holdLock is another process that takes a lock and keeps it.
func (r *run) holdLock(map[string]bool) func() {
	path := []string{filepath.Join(r.StateDir, "lock"), filepath.Join(r.StateDir, "lock.turnstile"), r.xtablesLock()}[r.rng.IntN(3)]
	hold := time.Duration(r.rng.IntN(800)) * time.Millisecond
	return func() {
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return // a disk that is full
		}
		defer file.Close()
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX)
		r.note("%s held for %s: %v", filepath.Base(path), hold, err)
		time.Sleep(hold)
	}
}

// fillDisk leaves no room for state and data for a while.
func (r *run) fillDisk(map[string]bool) func() {
	hold := time.Duration(200+r.rng.IntN(800)) * time.Millisecond
	return func() {
		filler := filepath.Join(r.tmpfs, "filler")
		for _, block := range []int{1 << 16, 1 << 12} { // until there is no page left
			file, err := os.OpenFile(filler, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
			for err == nil {
				_, err = file.Write(make([]byte, block))
			}
			file.Close()
		}
		r.note("disk full for %s", hold)
		time.Sleep(hold)
		_ = os.Remove(filler)
	}
}

// flushes are what others do to rules; what is not there to be damaged is fine.
var flushes = []string{
	"nft flush ruleset",
	"iptables -t nat -F; ip6tables -t nat -F",
	"iptables -t nat -F IP-MASQ-AGENT; nft flush chain inet ip-masq-agent IP-MASQ-AGENT",
	"iptables -t nat -F IP-MASQ-AGENT-PODS; nft flush set inet ip-masq-agent pods4",
	"iptables -t nat -F POSTROUTING; nft flush chain inet ip-masq-agent postrouting",
	"iptables -t nat -D IP-MASQ-AGENT-PODS 1; iptables -t nat -D IP-MASQ-AGENT 2; nft delete table inet ip-masq-agent",
	"printf '*nat\\n-A POSTROUTING -s 10.9.0.0/16 -j ACCEPT\\nCOMMIT\\n' | iptables-restore",
	"iptables -t nat -I POSTROUTING -j ACCEPT; sleep 0.1; iptables -t nat -D POSTROUTING -j ACCEPT",
	"iptables -t nat -S POSTROUTING | grep MASQ | sed 's/-A/iptables -t nat -A/' | sh",
}

func (r *run) flush(map[string]bool) func() {
	script := flushes[r.rng.IntN(len(flushes))]
	return func() {
		r.note("other software: %s", script)
		r.exec(netnstest.Cmd{Args: []string{"sh", "-c", script}})
	}
}

// addRule puts another program's rule into our chain. A switch of backends would leave it in the old one, as it should, and the
// model would have to remember it; so the two share a resource.
func (r *run) addRule(map[string]bool) func() {
	return func() {
		r.note("other software's rule in our chain")
		r.exec(netnstest.Cmd{Args: []string{"iptables", "-t", "nat", "-I", "IP-MASQ-AGENT", "-s", "10.9.9.9", "-j", "ACCEPT"}})
	}
}

func (r *run) hangUp(map[string]bool) func() {
	return func() { _ = r.agent.Signal(syscall.SIGHUP) }
}

func (r *run) killAgent(map[string]bool) func() {
	down := time.Duration(r.rng.IntN(300)) * time.Millisecond
	return func() {
		r.note("the agent is killed, and back after %s", down)
		r.stopAgent(syscall.SIGKILL)
		time.Sleep(down)
		r.startAgent()
	}
}
