package netnstest

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestExec(t *testing.T) {
	Require(t)
	s := NewSpace(t, "x")
	s.Env = []string{"A=1", "B=1"}
	r, err := s.Exec(context.Background(), Cmd{
		Args:  []string{"sh", "-c", "cat; echo $A$B >&2; exit 3"},
		Env:   []string{"B=2"},
		Stdin: "in",
	})
	if want := (Result{"in", "12\n", 3}); err != nil || r != want {
		t.Errorf("got %+v, %v, want %+v", r, err, want)
	}
	if _, err := s.Exec(context.Background(), Cmd{Args: []string{"no-such-program"}}); err == nil {
		t.Error("a missing program is no result")
	}
}

func TestExecEndsWithItsContext(t *testing.T) {
	Require(t)
	s := NewSpace(t, "x")
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.Exec(ctx, Cmd{Args: []string{"sleep", "5"}}); err == nil {
		t.Error("ended by its context without an error")
	}
}

func TestExecIsInTheNamespace(t *testing.T) {
	Require(t)
	node := NewNode(t)
	if out := node.Run(t, "ip", "-br", "link"); !strings.Contains(out, "internet@") {
		t.Errorf("not the node's links:\n%s", out)
	}
	if out := node.Internet.Run(t, "ip", "-br", "link"); !strings.Contains(out, "eth0@") {
		t.Errorf("not the host's links:\n%s", out)
	}
}

func TestNodeHasItsOwnCNICache(t *testing.T) {
	Require(t)
	one, two := NewNode(t), NewNode(t)
	one.Run(t, "touch", cniCache+"/probe")
	if _, err := os.Stat(filepath.Join(one.CacheDir, "probe")); err != nil {
		t.Error(err)
	}
	if out := two.Run(t, "ls", cniCache); out != "" {
		t.Errorf("another node sees %s", out)
	}
	if _, err := os.Stat(cniCache + "/probe"); err == nil {
		t.Error("the machine sees it too")
	}
	// Mount namespaces are made once, namespaces of pods later.
	pod := one.NewPod(t, "late")
	one.Run(t, "nsenter", "--net="+pod.Path, "true")
}

func TestProcess(t *testing.T) {
	Require(t)
	p := NewSpace(t, "x").Start(t, Cmd{Args: []string{"sh", "-c", "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done"}})
	Eventually(t, 2*time.Second, "its output", func() bool { return p.Output() == "up\n" })
	if code := p.Stop(syscall.SIGTERM, 2*time.Second); code != 7 {
		t.Errorf("exit %d, want 7", code)
	}
}

func TestProcessesEndWithTheirNamespace(t *testing.T) {
	Require(t)
	s := NewSpace(t, "x")
	p := s.Start(t, Cmd{Args: []string{"sleep", "60"}})
	s.Remove()
	select {
	case <-p.Done:
	case <-time.After(2 * time.Second):
		t.Error("still runs")
	}
}

// TestInterrupt re-runs this test binary, which builds a node and waits.
func TestInterrupt(t *testing.T) {
	Require(t)
	if os.Getenv("NETNSTEST_WAIT") != "" {
		t.Logf("name %s", NewNode(t).Name)
		_ = os.WriteFile(os.Getenv("NETNSTEST_WAIT"), nil, 0o600)
		time.Sleep(10 * time.Second)
		return
	}
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
		ready := filepath.Join(t.TempDir(), "ready")
		cmd := exec.Command(os.Args[0], "-test.run=^TestInterrupt$")
		cmd.Env = append(os.Environ(), "NETNSTEST_WAIT="+ready)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		Eventually(t, 10*time.Second, "the node of the child", func() bool {
			_, err := os.Stat(ready)
			return err == nil
		})
		_ = cmd.Process.Signal(sig)
		_ = cmd.Wait()
		if sig == syscall.SIGKILL {
			removeStale() // as the next run does
		}
		if left := ofProcess(cmd.Process.Pid); len(left) != 0 {
			t.Errorf("after %v: %v", sig, left)
		}
	}
}

func ofProcess(pid int) (names []string) {
	entries, _ := os.ReadDir(runDir)
	for _, e := range entries {
		if ownerOf(e.Name()) == pid {
			names = append(names, e.Name())
		}
	}
	return names
}

func TestNodeKnowsNoNames(t *testing.T) {
	Require(t, "iptables-nft")
	node := NewNode(t)
	start := time.Now()
	for _, addr := range []string{"8.8.8.8", "169.254.0.0/16"} {
		node.Run(t, "iptables-nft", "-t", "nat", "-A", "POSTROUTING", "-d", addr, "-j", "ACCEPT")
		if out := node.Run(t, "iptables-nft", "-t", "nat", "-L", "POSTROUTING"); !strings.Contains(out, " "+addr+" ") {
			t.Errorf("no %s in\n%s", addr, out)
		}
	}
	if took := time.Since(start); took > Limit(time.Second) {
		t.Errorf("the listings took %v", took)
	}
}

func TestDialContext(t *testing.T) {
	Require(t)
	s := NewSpace(t, "x")
	s.Serve(t, netip.MustParseAddr("127.0.0.1"))
	conn, err := s.DialContext(context.Background(), "tcp", fmt.Sprintf("127.0.0.1:%d", Port))
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}
