package install

import (
	"sync"
	"testing"
)

// B4: installers at the same time all succeed, whatever each of them finds, and so do uninstallers.
func TestInstallersAtOnce(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"10-a.conflist", "10-a.conf"} {
		h := newHost(t)
		text := bridgeList
		if isSingle(name) {
			text = bridgeConf
		}
		h.write(name, text)
		for _, command := range []string{"install", "install", "uninstall"} {
			h.atOnce(6, command)
			if command == "install" {
				h.must(h.installed())
			}
		}
		if got := h.read(h.path(name)); got != text || len(h.names()) != 1 {
			t.Errorf("not given back in %v:\n%s", h.names(), got)
		}
		h.clean()
	}
}

func (h *host) atOnce(n int, command string) {
	h.t.Helper()
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			if r := h.run(command); r.code != 0 {
				h.t.Errorf("%s: exit %d: %s", command, r.code, r.stderr)
			}
		})
	}
	all.Wait()
}

// Whoever calls the plugin while it is installed again and again, also another build each time, gets an answer.
func TestVersionDuringReinstalls(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.write("10-a.conflist", bridgeList)
	h.want(0, "", "install")
	calls, done := make(chan struct{}, 1000), make(chan struct{})
	var callers sync.WaitGroup
	for range 4 {
		callers.Go(func() {
			for range 250 {
				if err := h.answers(); err != nil {
					t.Errorf("VERSION: %v", err)
				}
				calls <- struct{}{}
			}
		})
	}
	go func() { callers.Wait(); close(done) }()
	h.reinstall(50, done)
	<-done
	if len(calls) != 1000 {
		t.Errorf("%d calls", len(calls))
	}
}

// reinstall goes on until both the installs and the calls are enough.
func (h *host) reinstall(n int, done <-chan struct{}) {
	h.t.Helper()
	for i := 0; ; i++ {
		select {
		case <-done:
			if i >= n {
				return
			}
		default:
			if i >= 2*n {
				return
			}
		}
		h.source = pluginA()
		if i%2 == 0 {
			h.source = pluginB()
		}
		h.want(0, "", "install")
	}
}
