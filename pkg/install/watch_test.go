package install

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/atomicfile"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// watching is a running watch.
type watching struct {
	*host
	cmd     *exec.Cmd
	log     lockedBuffer
	address string
	done    chan struct{}
}

type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(text []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(text)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

func (h *host) watch(t *testing.T, extra ...string) *watching {
	t.Helper()
	w := &watching{host: h, address: freeAddress(t), done: make(chan struct{})}
	args := slices.Concat([]string{"watch", "--metrics-bind-address", w.address}, h.flags(), extra)
	w.cmd = exec.Command(installerBin(), args...)
	w.cmd.Stderr = &w.log
	h.must(w.cmd.Start())
	go func() { _ = w.cmd.Wait(); close(w.done) }()
	t.Cleanup(func() {
		_ = w.cmd.Process.Kill()
		<-w.done
		if t.Failed() {
			t.Logf("the watch's log:\n%s", w.log.String())
		}
	})
	return w
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().String()
}

func (w *watching) get(path string) (int, string) {
	response, err := http.Get("http://" + w.address + path)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = response.Body.Close() }()
	body, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(body)
}

func (w *watching) ready() error {
	if code, body := w.get("/readyz"); code != 200 || body != "ok\n" {
		return fmt.Errorf("/readyz: %d %s", code, body)
	}
	return nil
}

// within waits until check passes, and returns how long that took.
func within(t *testing.T, limit time.Duration, what string, check func() error) time.Duration {
	t.Helper()
	start := time.Now()
	for {
		err := check()
		took := time.Since(start)
		if err == nil {
			return took
		}
		if took > netnstest.Limit(limit) {
			t.Fatalf("%s: not within %s: %v", what, limit, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// end sends SIGTERM and returns the exit status.
func (w *watching) end() int {
	w.t.Helper()
	start := time.Now()
	w.must(w.cmd.Process.Signal(syscall.SIGTERM))
	<-w.done
	if took := time.Since(start); took > netnstest.Limit(5*time.Second) {
		w.t.Errorf("SIGTERM took %s", took)
	}
	return w.cmd.ProcessState.ExitCode()
}

// B20-B24: whatever the network's owner does, the entry is back within two seconds. The machine may be busy with other tests
// and late for once, so each of them has three tries.
func TestWatchRepairs(t *testing.T) {
	t.Parallel()
	const name = "10-pods.conflist"
	outside := t.TempDir()
	whole := func(h *host, path string) { h.must(os.WriteFile(path, []byte(bridgeList), 0o600)) }
	for what, disturb := range map[string]func(h *host){
		"overwritten in place": func(h *host) { h.write(name, bridgeList) },
		"written in two writes": func(h *host) {
			file, err := os.OpenFile(h.path(name), os.O_WRONLY|os.O_TRUNC, 0)
			h.must(err)
			_, _ = file.WriteString(bridgeList[:60])
			time.Sleep(300 * time.Millisecond)
			_, _ = file.WriteString(bridgeList[60:])
			h.must(file.Close())
		},
		"renamed over": func(h *host) { whole(h, h.path("tmp")); h.must(os.Rename(h.path("tmp"), h.path(name))) },
		"deleted and recreated": func(h *host) {
			h.must(os.Remove(h.path(name)))
			time.Sleep(200 * time.Millisecond)
			h.write(name, bridgeList)
		},
		"directory recreated": func(h *host) {
			h.must(os.RemoveAll(h.conf))
			time.Sleep(200 * time.Millisecond)
			h.mkdir(h.conf)
			h.write(name, bridgeList)
		},
		"moved in from elsewhere": func(h *host) {
			from := filepath.Join(outside, name)
			whole(h, from)
			h.must(os.Rename(from, h.path(name)))
		},
		"another first file": func(h *host) { h.write(fmt.Sprintf("0%d.conflist", 9-len(h.names())), bridgeList) },
		"a conf instead":     func(h *host) { h.must(os.Remove(h.path(h.names()[0]))); h.write("10-single.conf", bridgeConf) },
		"binary deleted":     func(h *host) { h.must(os.Remove(h.target())) },
		"binary replaced":    func(h *host) { h.must(os.Remove(h.target())); h.must(os.WriteFile(h.target(), []byte("x"), 0o755)) },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.write(name, bridgeList)
			w := h.watch(t)
			within(t, 10*time.Second, "start", w.ready)
			best := time.Hour
			for range 3 {
				disturb(h)
				took := within(t, 10*time.Second, what, func() error { return errorOr(h.installed(), h.loadsFirst()) })
				if best = min(best, took); best < netnstest.Limit(2*time.Second) {
					break
				}
			}
			t.Logf("%s", best)
			if best > netnstest.Limit(2*time.Second) {
				t.Errorf("it took %s at best", best)
			}
			within(t, 2*time.Second, "ready again", w.ready)
			if _, body := w.get("/metrics"); !strings.Contains(body, "\nip_masq_installer_writes_total ") || strings.Contains(body, "writes_total 0") {
				t.Errorf("the repair was not counted:\n%s", body)
			}
			if code := w.end(); code != 0 {
				t.Errorf("exit %d", code)
			}
			h.must(h.installed())
			h.clean()
		})
	}
}

func errorOr(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// loadsFirst fails while the former file of a conversion is still there.
func (h *host) loadsFirst() error {
	if exists(h.path("10-single.conf")) {
		return fmt.Errorf("10-single.conf is still there")
	}
	return nil
}

// The watch outlives whatever the node lacks, says what that is, and installs when it is there.
func TestWatchWaits(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.must(os.RemoveAll(h.conf))
	h.must(os.RemoveAll(h.bin))
	w := h.watch(t)
	reason := func(words ...string) {
		t.Helper()
		within(t, 5*time.Second, fmt.Sprint("a reason with ", words), func() error {
			code, body := w.get("/readyz")
			for _, word := range words {
				if code != 503 || !strings.Contains(body, word) {
					return fmt.Errorf("%d %s", code, body)
				}
			}
			return nil
		})
	}
	reason(h.conf)
	h.mkdir(h.conf)
	reason(h.bin)
	h.mkdir(h.bin)
	reason(h.conf, "no network")
	h.write("10-a.conflist", "")
	reason("10-a.conflist", "empty")
	h.write("10-a.conflist", bridgeList[:50])
	reason("10-a.conflist", "broken")
	h.write("10-a.conflist", listOf(v1, `{"type":"bridge","ipMasq":true}`))
	reason("10-a.conflist", "ipMasq")
	h.write("10-a.conflist", listOf(`"cniVersion":"0.2.0",`, `{"type":"bridge"}`))
	reason("10-a.conflist", "cniVersion")
	time.Sleep(time.Second)
	reason("cniVersion") // between two tries, too
	if strings.Count(w.log.String(), "cniVersion") != 1 {
		t.Error("the reason is not in the log once")
	}
	if code, body := w.get("/livez"); code != 200 {
		t.Errorf("/livez: %d %s", code, body)
	}
	h.write("10-a.conflist", bridgeList)
	within(t, 5*time.Second, "installed", h.installed)
	within(t, 5*time.Second, "ready", w.ready)
	if code, _ := w.get("/healthz"); code != 200 {
		t.Errorf("/healthz: %d", code)
	}
	h.must(os.RemoveAll(h.state))
	within(t, 5*time.Second, "its lock again", func() error { _, err := os.Stat(h.state + "/installer.lock"); return err })
	h.want(3, "watch", "uninstall")
}

// Nothing is written while nothing changes: no event, no new inode, no new time.
func TestWatchIsIdle(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.write("10-a.conflist", bridgeList)
	w := h.watch(t)
	within(t, 10*time.Second, "start", w.ready)
	time.Sleep(2 * time.Second)
	before, conf, bin, state := h.snapshot(), events(t, h.conf), events(t, h.bin), events(t, h.state)
	time.Sleep(12 * time.Second) // longer than recheckTime
	if got := conf() + bin() + state(); got != "" {
		t.Errorf("idle, but %s", got)
	}
	h.unchangedSince(before)
	if code := w.end(); code != 0 {
		t.Errorf("exit %d", code)
	}
	h.unchangedSince(before)
}

// B22: another program that takes the entry out at once and continuously gets about one write a second. The probes say so, and
// the log once, both naming the file. When it ends, the node is ready again.
func TestWatchFight(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.write("10-a.conflist", bridgeList)
	w := h.watch(t)
	within(t, 10*time.Second, "start", w.ready)
	const long = 12 * time.Second
	writes, fought := 0, false
	for start := time.Now(); time.Since(start) < long; time.Sleep(20 * time.Millisecond) {
		if strings.Contains(h.read(h.path("10-a.conflist")), "ip-masq") {
			writes++
			h.write("10-a.conflist", bridgeList)
		}
		if code, body := w.get("/readyz"); code == 503 && strings.Contains(body, "fight") && strings.Contains(body, h.path("10-a.conflist")) {
			_, metrics := w.get("/metrics")
			fought = fought || strings.Contains(metrics, "ip_masq_installer_fights_total 1") && strings.Contains(metrics, "ip_masq_installer_ready 0")
		}
	}
	if writes < 4 || writes > 15 {
		t.Errorf("%d writes in %s", writes, long)
	}
	if !fought {
		t.Error("the probes do not speak of a fight")
	}
	if n := strings.Count(w.log.String(), "in a fight over "+h.path("10-a.conflist")); n != 1 {
		t.Errorf("the fight is in the log %d times", n)
	}
	within(t, 2*time.Second, "repaired", h.installed)
	took := within(t, 30*time.Second, "ready again", w.ready)
	t.Logf("%d writes in %s, ready %s after", writes, long, took)
}

// A start is no failure, on a new node and on one that has everything: watch installs at once.
func TestWatchStarts(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.write("10-a.conflist", bridgeList)
	for _, want := range []string{"10-a.conflist: edited", "names ip-masq, and"} {
		w := h.watch(t)
		within(t, 10*time.Second, "start", w.ready)
		w.end()
		log := w.log.String()
		if !strings.Contains(log, want) || strings.Contains(log, "level=WARN") || strings.Contains(log, "level=ERROR") || strings.Contains(log, "not ready") || strings.Count(log, "ready: ") != 1 {
			t.Errorf("want %q, no warning, and ready once:\n%s", want, log)
		}
	}
}

// The log's format and what it says of itself are the agent's.
func TestWatchLogsJSON(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	w := h.watch(t, "--log-format=json", "-v=2")
	within(t, 5*time.Second, "a reason", func() error {
		if !strings.Contains(w.log.String(), `"level":"WARN","msg":"not ready","reason":"not possible now: there is no network in`) {
			return fmt.Errorf("not in the log")
		}
		return nil
	})
}

// B25: SIGTERM ends it at once, also while a plugin does not answer; uninstall refuses as long as it runs.
func TestWatchEnds(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.write("10-a.conflist", bridgeList)
	w := h.watch(t)
	within(t, 10*time.Second, "start", w.ready)
	second := h.watch(t)
	within(t, 10*time.Second, "a second one", second.ready)
	before := h.snapshot()
	h.want(3, "watch "+h.state, "uninstall")
	h.want(3, "watch "+h.state, "uninstall", "--dry-run")
	if code := w.end(); code != 0 {
		t.Errorf("exit %d", code)
	}
	h.want(3, "watch", "uninstall")
	if code := second.end(); code != 0 {
		t.Errorf("exit %d", code)
	}
	h.unchangedSince(before)
	h.want(0, "", "uninstall")
	if files, _ := os.ReadDir(h.state); len(files) != 0 {
		t.Errorf("left in the state directory: %v", files)
	}
}

func TestWatchEndsWhileThePluginHangs(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.write("10-a.conflist", bridgeList)
	h.source = t.TempDir()
	h.must(os.WriteFile(filepath.Join(h.source, "ip-masq"), []byte("#!/bin/sh\nsleep 100\n"), 0o755))
	w := h.watch(t)
	within(t, 5*time.Second, "a plugin that runs", func() error {
		for path := range h.snapshot() {
			if strings.Contains(path, atomicfile.TempPrefix) {
				return nil
			}
		}
		return fmt.Errorf("no temporary file")
	})
	if code := w.end(); code != 0 {
		t.Errorf("exit %d", code)
	}
	h.clean()
	if exists(h.target()) || h.read(h.path("10-a.conflist")) != bridgeList {
		t.Error("something was changed")
	}
}
