package notify

import (
	"context"
	"html"
	"net/http"
	"net/url"
	"strings"
)

// matrix speaks the client-server API of Matrix, v3: PUT of a room's message.
// The transaction is the message's identity, so that a server which has it
// already says so and shows it once.
type matrix struct{ web }

func (x matrix) send(ctx context.Context, m Message) (string, error) {
	rich := "<strong>" + html.EscapeString(m.Title) + "</strong><br>" + strings.ReplaceAll(html.EscapeString(m.Text()), "\n", "<br>")
	if m.Link != "" {
		rich += `<br><a href="` + html.EscapeString(m.Link) + `">Show</a>`
	}
	for _, b := range m.Buttons {
		rich += ` <a href="` + html.EscapeString(b.URL) + `">` + html.EscapeString(b.Label) + `</a>`
	}
	address := strings.TrimSuffix(x.entry.URL, "/") + "/_matrix/client/v3/rooms/" + url.PathEscape(x.entry.To[0]) + "/send/m.room.message/" + m.ID
	return x.post(ctx, http.MethodPut, address, map[string]string{"Authorization": "Bearer " + x.secret}, map[string]string{
		"msgtype": "m.text", "body": m.Title + "\n" + m.WithPages(), "format": "org.matrix.custom.html", "formatted_body": rich,
	})
}

// telegram speaks the Bot API of Telegram: sendMessage in plain text.
type telegram struct{ web }

// telegramMost is the longest text of a message, in UTF-16 units; bytes are
// never fewer.
const telegramMost = 4096

func (t telegram) send(ctx context.Context, m Message) (string, error) {
	x := map[string]any{
		"chat_id": t.entry.To[0], "text": cut(m.Title+"\n"+m.Text(), telegramMost), "link_preview_options": map[string]bool{"is_disabled": true},
		"disable_notification": !m.Urgent && m.Kind == Receipt,
	}
	type key struct {
		Text string `json:"text"`
		URL  string `json:"url"`
	}
	var row []key
	if m.Link != "" {
		row = append(row, key{"Show", m.Link})
	}
	for _, b := range m.Buttons {
		row = append(row, key{b.Label, b.URL})
	}
	if row != nil {
		x["reply_markup"] = map[string]any{"inline_keyboard": [][]key{row}}
	}
	return t.post(ctx, http.MethodPost, strings.TrimSuffix(t.entry.URL, "/")+"/bot"+t.secret+"/sendMessage", nil, x)
}

// slack speaks Slack's incoming webhooks, as Mattermost does.
type slack struct{ web }

// slackMost keeps a text below the 40,000 characters at which Slack cuts.
const slackMost = 12_000

// slackText escapes the characters that begin links and calls of everybody.
var slackText = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

func (s slack) send(ctx context.Context, m Message) (string, error) {
	text := "*" + slackText.Replace(m.Title) + "*\n" + slackText.Replace(cut(m.Text(), slackMost))
	var links []string
	if m.Link != "" {
		links = append(links, "<"+slackText.Replace(m.Link)+"|Show>")
	}
	for _, b := range m.Buttons {
		links = append(links, "<"+slackText.Replace(b.URL)+"|"+slackText.Replace(b.Label)+">")
	}
	if links != nil {
		text += "\n" + strings.Join(links, "  ")
	}
	return s.post(ctx, http.MethodPost, s.secret, nil, map[string]any{"text": text, "unfurl_links": false, "unfurl_media": false})
}

// discord speaks Discord's webhooks.
type discord struct{ web }

// discordMost is the longest content of a message, in characters.
const discordMost = 2000

// discordText escapes Markdown. Nobody can be called by a message: it allows no
// mentions.
var discordText = strings.NewReplacer(`\`, `\\`, "*", `\*`, "_", `\_`, "~", `\~`, "`", "\\`", "|", `\|`, ">", `\>`, "#", `\#`, "[", `\[`, "]", `\]`, "<", `\<`)

const (
	discordNoEmbeds = 1 << 2
	discordSilent   = 1 << 12
)

func (d discord) send(ctx context.Context, m Message) (string, error) {
	pages := ""
	if m.Link != "" {
		pages = "\n<" + m.Link + ">"
	}
	for _, b := range m.Buttons {
		pages += "\n" + b.Label + ": <" + b.URL + ">"
	}
	text := cut("**"+discordText.Replace(m.Title)+"**\n"+discordText.Replace(m.Text()), discordMost-len(pages)) + pages
	flags := discordNoEmbeds
	if m.Kind == Receipt {
		flags |= discordSilent
	}
	return d.post(ctx, http.MethodPost, d.secret, nil, map[string]any{"content": text, "allowed_mentions": map[string]any{"parse": []string{}}, "flags": flags})
}
