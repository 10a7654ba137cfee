package e2e

import (
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/node"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// annotated are keys of the plugin's entry for a pod with an annotation.
func annotated(name, value string) string {
	return `"runtimeConfig": {"io.kubernetes.cri.pod-annotations": {"` + name + `": "` + value + `"}}`
}

// TestRefusedAnnotations: a pod that came while no agent was up, under a policy that lets no annotation count, is masqueraded all the
// same; the agent that comes then logs and counts it, and the next one does not count it again. Status names it.
func TestRefusedAnnotations(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.Write(t, never)
		r.Sync(t)
		settings := policy.DefaultSettings()
		settings.PodAnnotations = policy.DenyAnnotations
		if err := node.New(node.Options{DataDir: r.DataDir}).SavePolicy(policy.Default(settings)); err != nil {
			t.Fatal(err)
		}
		p := r.newPod(t, "a")
		if got := r.plugin(t, "ADD", p, annotated(policy.MasqueradeAnnotation, "false")); got.Code != 0 || !strings.Contains(got.Stderr, "refused") {
			t.Fatalf("ADD: %d\n%s%s", got.Code, got.Stdout, got.Stderr)
		}
		r.wantSeen(t, p, nodeAddress)
		for _, run := range []struct{ name, want string }{{"the first agent", "1"}, {"the second", "0"}} {
			agent := r.startReady(t)
			if got := r.sample(t, "refused_annotations_total"); got != run.want {
				t.Errorf("%s counts %q refused annotations, want %s", run.name, got, run.want)
			}
			if logged := strings.Contains(agent.Output(), "refused"); logged != (run.want == "1") {
				t.Errorf("%s logs the refusal: %t\n%s", run.name, logged, agent.Output())
			}
			s := r.status(t)
			if len(s.Pods.Attached) != 1 || !slices.Equal(s.Pods.Attached[0].RefusedAnnotations, []string{policy.MasqueradeAnnotation}) {
				t.Errorf("%s: %+v", run.name, s.Pods)
			}
			if text := r.Agent(t, "status").Stdout; !strings.Contains(text, "refused: "+policy.MasqueradeAnnotation) {
				t.Errorf("%s:\n%s", run.name, text)
			}
			agent.Stop(syscall.SIGTERM, patience)
		}
		// Under the file, which says nothing of annotations, another one counts; both keep what their ADDs decided.
		out := r.newPod(t, "b")
		if got := r.plugin(t, "ADD", out, annotated(policy.MasqueradeAnnotation, "false"), `"masquerade": true`); got.Code != 0 {
			t.Fatalf("ADD: %d\n%s", got.Code, got.Stdout)
		}
		over := r.newPod(t, "c")
		if got := r.plugin(t, "ADD", over, annotated(policy.MasqueradeAnnotation, "true"), `"masquerade": false`); got.Code != 0 {
			t.Fatalf("ADD: %d\n%s", got.Code, got.Stdout)
		}
		r.Sync(t)
		r.wantSeen(t, p, nodeAddress)
		r.wantSeen(t, out, out.Addrs[0].String())
		r.wantSeen(t, over, nodeAddress)
	})
}
