package manifests

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

// apiServer is as much of one as kubectl needs to create, get and patch a few kinds of objects. It has no defaults, no
// admission and no controllers; what it is given it decodes strictly, as a real one does for kubectl.
type apiServer struct {
	mu      sync.Mutex
	objects map[string][]byte // by path
	url     string
}

// resource is a kind of objects that the server knows.
type resource struct {
	group, plural, kind string
	namespaced          bool
	empty               runtime.Object
}

var resources = []resource{
	{"api/v1", "nodes", "Node", false, &corev1.Node{}},
	{"api/v1", "configmaps", "ConfigMap", true, &corev1.ConfigMap{}},
	{"api/v1", "services", "Service", true, &corev1.Service{}},
	{"apis/apps/v1", "daemonsets", "DaemonSet", true, &appsv1.DaemonSet{}},
	// As on a cluster with the Prometheus operator.
	{"apis/monitoring.coreos.com/v1", "podmonitors", "PodMonitor", true, &unstructured.Unstructured{}},
	{"apis/monitoring.coreos.com/v1", "prometheusrules", "PrometheusRule", true, &unstructured.Unstructured{}},
}

// startAPIServer returns the server and the environment in which kubectl talks to it.
func startAPIServer(t *testing.T) (*apiServer, []string) {
	t.Helper()
	s := &apiServer{objects: map[string][]byte{}}
	mux := http.NewServeMux()
	s.discovery(mux)
	mux.HandleFunc("GET /", s.get)
	mux.HandleFunc("POST /", s.create)
	mux.HandleFunc("PATCH /", s.patch)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	s.url = server.URL
	config := filepath.Join(t.TempDir(), "kubeconfig")
	content := fmt.Sprintf("{apiVersion: v1, kind: Config, current-context: c, clusters: [{name: c, cluster: {server: %q}}], contexts: [{name: c, context: {cluster: c}}]}", s.url)
	if err := os.WriteFile(config, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return s, []string{"KUBECONFIG=" + config}
}

// discovery answers which kinds there are, and that the server validates fields itself.
func (s *apiServer) discovery(mux *http.ServeMux) {
	always := func(path, answer string) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, answer)
		})
	}
	always("/version", `{"major":"1","minor":"35","gitVersion":"v1.35.0"}`)
	always("/api", `{"kind":"APIVersions","versions":["v1"]}`)
	var groups, schemas []string
	for _, group := range []string{"api/v1", "apis/apps/v1", "apis/monitoring.coreos.com/v1"} {
		always("/"+group, resourceList(group))
		always("/openapi/v3/"+group, schema(group))
		schemas = append(schemas, fmt.Sprintf(`%q:{"serverRelativeURL":%q}`, group, "/openapi/v3/"+group))
		if name, v := path.Split(groupVersion(group)); name != "" {
			version := fmt.Sprintf(`{"groupVersion":%q,"version":%q}`, name+v, v)
			groups = append(groups, fmt.Sprintf(`{"name":%q,"versions":[%s],"preferredVersion":%s}`, strings.TrimSuffix(name, "/"), version, version))
		}
	}
	always("/apis", fmt.Sprintf(`{"kind":"APIGroupList","apiVersion":"v1","groups":[%s]}`, strings.Join(groups, ",")))
	always("/openapi/v3", fmt.Sprintf(`{"paths":{%s}}`, strings.Join(schemas, ",")))
}

func groupVersion(group string) string {
	return strings.TrimPrefix(strings.TrimPrefix(group, "api/"), "apis/")
}

func resourceList(group string) string {
	var list []string
	for _, r := range resources {
		if r.group == group {
			list = append(list, fmt.Sprintf(`{"name":%q,"kind":%q,"namespaced":%t,"verbs":["create","get","patch"]}`, r.plural, r.kind, r.namespaced))
		}
	}
	return fmt.Sprintf(`{"kind":"APIResourceList","apiVersion":"v1","groupVersion":%q,"resources":[%s]}`, groupVersion(group), strings.Join(list, ","))
}

// schema has nothing but the operations that take fieldValidation, which is what kubectl looks for.
func schema(group string) string {
	var paths []string
	for _, r := range resources {
		if r.group == group {
			g, v := path.Split(groupVersion(group))
			paths = append(paths, fmt.Sprintf(`%q:{"patch":{"parameters":[{"name":"fieldValidation","in":"query"}],"responses":{},`+
				`"x-kubernetes-group-version-kind":{"group":%q,"version":%q,"kind":%q}}}`, "/"+group+"/"+r.plural+"/{name}", strings.TrimSuffix(g, "/"), v, r.kind))
		}
	}
	return fmt.Sprintf(`{"openapi":"3.0.0","info":{"title":"","version":""},"paths":{%s}}`, strings.Join(paths, ","))
}

func (s *apiServer) get(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	object, ok := s.objects[r.URL.Path]
	if !ok {
		refuse(w, http.StatusNotFound, "NotFound", r.URL.Path+" not found")
		return
	}
	answer(w, http.StatusOK, object)
}

func (s *apiServer) create(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		refuse(w, http.StatusBadRequest, "BadRequest", err.Error())
		return
	}
	s.store(w, http.StatusCreated, r.URL.Path, body)
}

func (s *apiServer) patch(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		refuse(w, http.StatusBadRequest, "BadRequest", err.Error())
		return
	}
	for _, kind := range resources {
		if strings.Contains(r.URL.Path, "/"+kind.plural+"/") {
			// A merge patch is a strategic one as long as it has no lists; kubectl label sends such.
			patched, err := strategicpatch.StrategicMergePatch(s.objects[r.URL.Path], body, kind.empty)
			if err != nil {
				refuse(w, http.StatusBadRequest, "BadRequest", err.Error())
				return
			}
			s.store(w, http.StatusOK, r.URL.Path, patched)
			return
		}
	}
	refuse(w, http.StatusNotFound, "NotFound", r.URL.Path+" not found")
}

// store refuses what does not decode. kubectl sends JSON and, where it knows the type, protobuf; what is kept is JSON.
func (s *apiServer) store(w http.ResponseWriter, status int, path string, body []byte) {
	object, err := decodeOne(body)
	if err != nil {
		refuse(w, http.StatusBadRequest, "BadRequest", err.Error())
		return
	}
	stored, err := json.Marshal(object)
	if err != nil {
		refuse(w, http.StatusInternalServerError, "InternalError", err.Error())
		return
	}
	if status == http.StatusCreated {
		_, name, _ := strings.Cut(nameOf(object), "/")
		path += "/" + name
	}
	s.objects[path] = stored
	answer(w, status, stored)
}

func answer(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

func refuse(w http.ResponseWriter, status int, reason, message string) {
	answer(w, status, fmt.Appendf(nil, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":%q,"message":%q,"code":%d}`, reason, message, status))
}
