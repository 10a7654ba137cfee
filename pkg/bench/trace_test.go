package bench

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// tally is what something asked of the system: programs started, and bytes exchanged with the kernel's firewall, by netlink
// or, where iptables-legacy is at work, by socket options.
type tally struct{ processes, sent, received int }

func (n tally) minus(m tally) tally {
	return tally{n.processes - m.processes, n.sent - m.sent, n.received - m.received}
}

// tracer runs a worker, so that tallies can be taken from the files that it writes, one per thread, as calls return.
type tracer struct{ files string }

// newTracer is nil, which traces nothing, unless it is wanted.
func newTracer(t testing.TB, wanted bool) *tracer {
	if !wanted {
		return nil
	}
	return &tracer{filepath.Join(t.TempDir(), "trace")}
}

// args go before the command.
func (tr *tracer) args() []string {
	if tr == nil {
		return nil
	}
	calls := "trace=execve,sendto,sendmsg,write,recvfrom,recvmsg,read,setsockopt,getsockopt"
	return []string{"strace", "-ff", "-qq", "-yy", "-s", "0", "-e", "signal=none", "-e", calls, "-o", tr.files, "--"}
}

// during takes the tally of a step.
func (tr *tracer) during(t testing.TB, step func()) tally {
	t.Helper()
	before := tr.tally(t)
	step()
	return tr.tally(t).minus(before)
}

func (tr *tracer) tally(t testing.TB) (sum tally) {
	t.Helper()
	files, err := filepath.Glob(tr.files + ".*")
	if err != nil || len(files) == 0 {
		t.Fatalf("no traces at %s: %v", tr.files, err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for call := range strings.Lines(string(data)) {
			sum.count(strings.TrimSpace(call))
		}
	}
	return sum
}

var (
	returned  = regexp.MustCompile(`^(\w+)\(.* = (\d+)$`)
	optionIn  = regexp.MustCompile(`SOL_IP, IPT_SO_\w+, .*, (\d+)\) = 0$`)
	optionOut = regexp.MustCompile(`SOL_IP, IPT_SO_\w+, .*\[(?:\d+ => )?(\d+)\]\) = 0$`)
)

func (n *tally) count(call string) {
	found := returned.FindStringSubmatch(call)
	if found == nil || strings.Contains(call, "MSG_PEEK") {
		return
	}
	bytes, _ := strconv.Atoi(found[2])
	netlink := strings.Contains(call, "<NETLINK:")
	switch name := found[1]; {
	case name == "execve":
		n.processes++
	case name == "setsockopt":
		n.sent += firstNumber(optionIn, call)
	case name == "getsockopt":
		n.received += firstNumber(optionOut, call)
	case netlink && (strings.HasPrefix(name, "send") || name == "write"):
		n.sent += bytes
	case netlink:
		n.received += bytes
	}
}

// firstNumber is the first group, 0 without a match.
func firstNumber(pattern *regexp.Regexp, text string) int {
	found := pattern.FindStringSubmatch(text)
	if found == nil {
		return 0
	}
	value, _ := strconv.Atoi(found[1])
	return value
}

func TestTallyReadsStrace(t *testing.T) {
	var got tally
	for _, call := range []string{
		`execve("/usr/sbin/iptables", ["iptables", ...], 0x7ffd /* 20 vars */) = 0`,
		`execve("/sbin/iptables", ["iptables", ...], 0x7ffd /* 20 vars */) = -1 ENOENT (No such file or directory)`,
		`sendto(3<NETLINK:[NETFILTER:77]>, [{nlmsg_len=20, ...}], 20, 0, NULL, 0) = 20`,
		`recvmsg(3<NETLINK:[NETFILTER:77]>, {msg_name=..., msg_flags=0}, MSG_PEEK) = 5000`,
		`recvmsg(3<NETLINK:[NETFILTER:77]>, {msg_name=..., msg_flags=0}, 0) = 300`,
		`read(4<UNIX-STREAM:[1]>, ""..., 4096) = 9`,
		`setsockopt(4<RAW:[8]>, SOL_IP, IPT_SO_SET_REPLACE, ""..., 808) = 0`,
		`getsockopt(4<RAW:[8]>, SOL_IP, IPT_SO_GET_ENTRIES, ""..., [664]) = 0`,
	} {
		got.count(call)
	}
	if want := (tally{processes: 1, sent: 828, received: 964}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
