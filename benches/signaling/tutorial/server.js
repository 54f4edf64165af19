// The signaling server of the WebRTC tutorials, as they write it: a table of names, and frames passed from one to the other.
// It prints nothing for a message, which is in its favour. The port is its argument.
const { WebSocketServer } = require('ws');

const server = new WebSocketServer({ port: Number(process.argv[2]), host: '127.0.0.1' });
const users = {};

server.on('connection', (connection) => {
  connection.on('message', (message) => {
    let data;
    try {
      data = JSON.parse(message);
    } catch {
      data = {};
    }
    switch (data.type) {
      case 'login':
        if (users[data.name]) {
          sendTo(connection, { type: 'login', success: false });
        } else {
          users[data.name] = connection;
          connection.name = data.name;
          sendTo(connection, { type: 'login', success: true });
        }
        break;
      case 'offer': {
        const other = users[data.name];
        if (other) {
          connection.otherName = data.name;
          sendTo(other, { type: 'offer', offer: data.offer, name: connection.name });
        }
        break;
      }
      case 'answer': {
        const other = users[data.name];
        if (other) {
          connection.otherName = data.name;
          sendTo(other, { type: 'answer', answer: data.answer });
        }
        break;
      }
      case 'candidate': {
        const other = users[data.name];
        if (other) {
          sendTo(other, { type: 'candidate', candidate: data.candidate });
        }
        break;
      }
      case 'leave': {
        const other = users[data.name];
        if (other) {
          other.otherName = null;
          sendTo(other, { type: 'leave' });
        }
        break;
      }
      default:
        sendTo(connection, { type: 'error', message: `Command not found: ${data.type}` });
    }
  });

  connection.on('close', () => {
    if (connection.name) {
      delete users[connection.name];
      const other = users[connection.otherName];
      if (other) {
        other.otherName = null;
        sendTo(other, { type: 'leave' });
      }
    }
  });
});

function sendTo(connection, message) {
  connection.send(JSON.stringify(message));
}
