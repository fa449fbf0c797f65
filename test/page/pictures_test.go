package page

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	cdp "github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"banmesh/internal/control"
)

// goldens are the pictures that are kept.
//
// The overview is not compared: the doctor says other things on other machines.
var goldens = []string{"topics-1280-light", "explain-ban-1280-light", "bans-360-dark"}

// pictures takes pictures of the pages, and compares some with those that are kept.
func pictures(t *testing.T, w *world, base string) {
	b := open(t, base, true)
	b.signIn(w)
	for _, wide := range []int64{1280, 360} {
		for _, scheme := range []string{"light", "dark"} {
			for _, p := range paths {
				name := fmt.Sprintf("%s-%d-%s", p.name, wide, scheme)
				kept := slices.Contains(goldens, name)
				if !kept && *shots == "" {
					continue
				}
				b.run("arranging", emulation.SetDeviceMetricsOverride(wide, 900, 1, false), emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}))
				b.to(p.path)
				var shot []byte
				b.run("a picture of "+name, chromedp.ActionFunc(func(ctx context.Context) (err error) {
					shot, err = cdp.CaptureScreenshot().WithFormat(cdp.CaptureScreenshotFormatPng).WithCaptureBeyondViewport(*shots != "" && !kept).Do(ctx)
					return err
				}))
				if *shots != "" {
					keep(t, filepath.Join(*shots, name+".png"), shot)
				}
				if kept {
					b.t.Run(name, func(t *testing.T) { compare(t, name, shot) })
				}
			}
		}
	}
	if *update {
		forReadme(t, b, w)
	}
}

// forReadme takes README's picture: of a node that is well, that enforces with nftables
// and has met those whom it banned.
func forReadme(t *testing.T, b *browser, w *world) {
	t.Helper()
	if os.Getenv(alone) == "" {
		t.Fatal("README's picture is of a node that enforces: make it as root")
	}
	synchronised(t)
	w.web.post("/v1/hold/approve", control.PeerRequest{Peer: "alice", Topic: "sshd"}, nil)
	knock(t, "203.0.113.7", 412)
	knock(t, "45.3.0.1", 268)
	eventually(t, "the kernel has met both", func() bool {
		var s control.Status
		w.web.get("/v1/status", nil, &s)
		return len(s.Warnings) == 0 && slices.ContainsFunc(s.Topics, func(t control.TopicStatus) bool { return t.Topic == "sshd" && t.Packets >= 680 })
	})
	b.run("arranging", emulation.SetDeviceMetricsOverride(1280, 1180, 1, false), emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "light"}}))
	var shot []byte
	eventually(t, "nothing is wrong", func() bool {
		b.to("/")
		return strings.Contains(b.text("#findings"), "Nothing is wrong")
	})
	b.run("README's picture", chromedp.ActionFunc(func(ctx context.Context) (err error) {
		shot, err = cdp.CaptureScreenshot().WithFormat(cdp.CaptureScreenshotFormatPng).Do(ctx)
		return err
	}))
	if len(shot) > maxReadme {
		t.Errorf("README's picture has %d bytes", len(shot))
	}
	keep(t, readmePicture, shot)
}

func keep(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// mostDifferent is the share of a picture that may differ: times and identities
// do, and fonts are rendered a little differently by each release.
const mostDifferent = 0.04

// readmePicture is the one that README shows, and maxReadme bounds it.
const (
	readmePicture = "../../docs/img/page.png"
	maxReadme     = 200 << 10
)

func compare(t *testing.T, name string, shot []byte) {
	t.Helper()
	got := small(t, shot)
	path := filepath.Join("testdata", name+".png")
	if *update {
		keep(t, path, encoded(t, got))
		return
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want, err := png.Decode(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if want.Bounds() != got.Bounds() {
		t.Fatalf("%v, want %v", got.Bounds(), want.Bounds())
	}
	differ := 0
	for y := range got.Bounds().Dy() {
		for x := range got.Bounds().Dx() {
			a, b := got.GrayAt(x, y).Y, color.GrayModel.Convert(want.At(x, y)).(color.Gray).Y
			if max(a, b)-min(a, b) > 40 {
				differ++
			}
		}
	}
	if share := float64(differ) / float64(got.Bounds().Dx()*got.Bounds().Dy()); share > mostDifferent {
		t.Errorf("%.1f %% of the picture differs; -shots DIR shows it, -update if that is meant", 100*share)
	}
}

// small makes a grey picture of a quarter of the size, in which a letter's edge
// is no difference.
func small(t *testing.T, shot []byte) *image.Gray {
	t.Helper()
	full, err := png.Decode(bytes.NewReader(shot))
	if err != nil {
		t.Fatal(err)
	}
	const by = 4
	out := image.NewGray(image.Rect(0, 0, full.Bounds().Dx()/by, full.Bounds().Dy()/by))
	for y := range out.Bounds().Dy() {
		for x := range out.Bounds().Dx() {
			sum := 0
			for dy := range by {
				for dx := range by {
					sum += int(color.GrayModel.Convert(full.At(x*by+dx, y*by+dy)).(color.Gray).Y)
				}
			}
			out.SetGray(x, y, color.Gray{Y: uint8(sum / (by * by))})
		}
	}
	return out
}

func encoded(t *testing.T, m image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
